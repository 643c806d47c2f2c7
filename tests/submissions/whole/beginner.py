# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.utils.data import DataLoader
from tqdm.notebook import tqdm

if torch.cuda.is_available():
    print("using the gpu")
    device = "cuda"
else:
    print("no gpu :(")
    device = "cpu"


# %%
# my encoder
class Encoder(nn.Module):

    def __init__(self, nz):
        super(Encoder, self).__init__()
        # layer 1
        self.conv_layer_1 = nn.Conv2d(in_channels=1, out_channels=32, kernel_size=4, stride=2, padding=1, bias=True)
        self.activation_1 = nn.LeakyReLU()
        # layer 2
        self.conv_layer_2 = nn.Conv2d(in_channels=32, out_channels=64, kernel_size=4, stride=2, padding=1, bias=True)
        self.batch_norm_2 = nn.BatchNorm2d(num_features=64)
        self.activation_2 = nn.LeakyReLU()
        # layer 3
        self.conv_layer_3 = nn.Conv2d(in_channels=64, out_channels=128, kernel_size=3, stride=2, padding=0, bias=True)
        self.batch_norm_3 = nn.BatchNorm2d(num_features=128)
        self.activation_3 = nn.LeakyReLU()
        # layer 4
        self.conv_layer_4 = nn.Conv2d(in_channels=128, out_channels=256, kernel_size=3, stride=1, padding=0, bias=True)
        self.batch_norm_4 = nn.BatchNorm2d(num_features=256)
        self.activation_4 = nn.LeakyReLU()
        # flatten and linear
        self.flatten_layer = nn.Flatten()
        self.linear_layer = nn.Linear(in_features=256, out_features=nz)
        self.number_of_parameters = sum([p.numel() for p in self.parameters()])
        self.debug = False

    def forward(self, x):
        input_of_layer_1 = x
        output_of_layer_1 = self.activation_1(self.conv_layer_1(input_of_layer_1))
        output_of_layer_2 = self.activation_2(self.batch_norm_2(self.conv_layer_2(output_of_layer_1)))
        output_of_layer_3 = self.activation_3(self.batch_norm_3(self.conv_layer_3(output_of_layer_2)))
        output_of_layer_4 = self.activation_4(self.batch_norm_4(self.conv_layer_4(output_of_layer_3)))
        if self.debug == True:
            print(output_of_layer_1.shape)
            print(output_of_layer_2.shape)
        output_of_flatten = self.flatten_layer(output_of_layer_4)
        output = self.linear_layer(output_of_flatten)
        return output


# %%
# my decoder
class Decoder(nn.Module):

    def __init__(self, nz):
        super(Decoder, self).__init__()
        self.nz = nz
        self.linear_layer = nn.Linear(nz, 256)
        self.batch_norm_1 = nn.BatchNorm2d(256)
        self.conv_layer_1 = nn.ConvTranspose2d(256, 128, 3)
        self.batch_norm_2 = nn.BatchNorm2d(128)
        self.conv_layer_2 = nn.ConvTranspose2d(128, 64, 3, stride=2)
        self.batch_norm_3 = nn.BatchNorm2d(64)
        self.conv_layer_3 = nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1)
        self.batch_norm_4 = nn.BatchNorm2d(32)
        self.conv_layer_4 = nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1)

    def forward(self, x):
        x = self.linear_layer(x)
        x = torch.reshape(x, (x.shape[0], 256, 1, 1))
        x = F.leaky_relu(self.batch_norm_1(x))
        x = self.conv_layer_1(x)
        x = F.leaky_relu(self.batch_norm_2(x))
        x = self.conv_layer_2(x)
        x = F.leaky_relu(self.batch_norm_3(x))
        x = self.conv_layer_3(x)
        x = F.leaky_relu(self.batch_norm_4(x))
        x = self.conv_layer_4(x)
        x = torch.sigmoid(x)
        return x


# %%
# test my layers
test_encoder = Encoder(64)
test_decoder = Decoder(64)
test_input = torch.rand(5, 1, 28, 28)
test_code = test_encoder(test_input)
print(test_code.shape)
test_output = test_decoder(test_code)
print(test_output.shape)
assert test_output.shape == test_input.shape


# %%
class AutoEncoder(nn.Module):
    def __init__(self, nz):
        super().__init__()
        self.encoder = Encoder(nz)
        self.decoder = Decoder(nz)

    def forward(self, x):
        return self.decoder(self.encoder(x))

    def reconstruct(self, x):
        return self.forward(x)


# %%
def make_data_loader(dataset, batch_size, num_workers=0):
    my_loader = DataLoader(dataset=dataset, batch_size=batch_size, shuffle=True, num_workers=num_workers)
    number_of_batches = len(my_loader)
    print("number of batches:", number_of_batches)
    return my_loader


# %%
def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    # move model to device
    model = model.to(device)
    # optimizer and loss
    optimizer = optim.Adam(model.parameters(), lr=learning_rate)
    loss_function = nn.MSELoss()
    all_losses = []
    # training loop
    for epoch in range(1, epochs + 1):
        model.train()
        running_loss = 0.0
        number_of_batches = 0
        for batch_index, batch in enumerate(tqdm(data_loader)):
            # get the images, we don't need the labels
            images = batch[0]
            labels = batch[1]
            images = images.to(device)
            labels = labels.to(device)
            # 1. zero the gradients
            optimizer.zero_grad()
            # 2. forward
            codes = model.encoder(images)
            outputs = model.decoder(codes)
            # 3. loss
            loss = loss_function(outputs, images)
            # 4. backward
            loss.backward()
            # 5. step
            optimizer.step()
            # save the loss
            loss_as_number = loss.item()
            all_losses.append(loss_as_number)
            running_loss = running_loss + loss_as_number
            number_of_batches = number_of_batches + 1
            if batch_index % 200 == 0:
                print("epoch", epoch, "batch", batch_index, "loss", loss_as_number)
        average_loss = running_loss / number_of_batches
        print("epoch", epoch, "average loss", average_loss)
    print("finished training!")
    return all_losses


# %%
def sample_images(model, num_samples, nz):
    model.eval()
    device_of_model = next(model.parameters()).device
    random_codes = torch.normal(mean=0.0, std=1.0, size=(num_samples, nz))
    random_codes = random_codes.to(device_of_model)
    with torch.no_grad():
        images = model.decoder(random_codes)
    images = images.cpu()
    return images


# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    log_ratio = log_sigma2 - log_sigma1
    spread = torch.exp(2 * log_sigma1) + (mu1 - mu2) ** 2
    return log_ratio + spread / (2 * torch.exp(2 * log_sigma2)) - 0.5


# %%
class VAE(nn.Module):

    def __init__(self, nz, beta=1.0):
        super(VAE, self).__init__()
        self.nz = nz
        self.beta = beta
        # two times nz because of mean and log sigma
        self.encoder = Encoder(nz * 2)
        self.decoder = Decoder(nz)

    def forward(self, x):
        q = self.encoder(x)
        mean = q[:, 0:self.nz]
        log_sigma = q[:, self.nz:2 * self.nz]
        # reparameterization trick
        sigma = log_sigma.exp()
        epsilon = torch.randn(size=mean.shape)
        epsilon = epsilon.to(mean.device)
        z = mean + sigma * epsilon
        rec = self.decoder(z)
        outputs = {}
        outputs['q'] = q
        outputs['rec'] = rec
        return outputs

    def loss(self, x, outputs):
        q = outputs['q']
        rec = outputs['rec']
        mean = q[:, 0:self.nz]
        log_sigma = q[:, self.nz:2 * self.nz]
        # reconstruction loss
        difference = rec - x
        squared = difference * difference
        rec_loss = torch.mean(squared)
        # kl loss
        mean_of_prior = torch.zeros(mean.shape).to(mean.device)
        log_sigma_of_prior = torch.zeros(log_sigma.shape).to(mean.device)
        kl = kl_divergence(mean, log_sigma, mean_of_prior, log_sigma_of_prior)
        kl = torch.sum(kl, dim=1)
        kl_loss = torch.mean(kl, dim=0)
        # total
        total = rec_loss + self.beta * kl_loss
        losses = {}
        losses['rec_loss'] = rec_loss
        losses['kl_loss'] = kl_loss
        return total, losses

    def reconstruct(self, x):
        q = self.encoder(x)
        mean = q[:, 0:self.nz]
        rec = self.decoder(mean)
        return rec


# %%
def train_vae(model, data_loader, epochs, learning_rate, device):
    model = model.to(device)
    optimizer = optim.Adam(model.parameters(), lr=learning_rate)
    list_of_rec_losses = []
    list_of_kl_losses = []
    for epoch in range(1, epochs + 1):
        model.train()
        for batch in tqdm(data_loader, desc="epoch " + str(epoch)):
            images = batch[0].to(device)
            optimizer.zero_grad()
            outputs = model(images)
            loss, losses = model.loss(images, outputs)
            loss.backward()
            optimizer.step()
            list_of_rec_losses.append(losses['rec_loss'].item())
            list_of_kl_losses.append(losses['kl_loss'].item())
    result = {}
    result['rec_loss'] = list_of_rec_losses
    result['kl_loss'] = list_of_kl_losses
    return result


# %%
# I tried 0.1, 0.01, 0.001, 0.0001 and the last was best
TUNED_BETA = 0.0001
